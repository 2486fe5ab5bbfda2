//! What a resource server must do.

use hyper::Method;
use serde_json::{Value, json};

use super::gateway::prints;
use crate::variant::Interface;
use crate::verify::Tried;
use crate::verify::trial::Trial;
use crate::verify::wire::http::Answer;
use crate::verify::wire::kernel::Kernel;

/// An MCP server that `MCP` is tried with.
const MCP_SERVER: &str = "\
from mcp.server.fastmcp import FastMCP

server = FastMCP(\"verify\")


@server.tool()
def add(a: int, b: int) -> str:
    \"\"\"Adds two numbers.\"\"\"
    return f\"sum {a + b}\"


server.run()
";

pub(in crate::verify) async fn files_go_in_and_out(trial: &Trial<'_>) -> Tried {
    let resources = trial.server(Interface::Resources)?;
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let ask = async |method, body: &[u8]| resources.ask(method, "/files/verify/one.bin", body.to_vec()).await;
    ask(Method::POST, &content).await.and_then(Answer::good)?;
    let back = ask(Method::GET, b"").await.and_then(Answer::good)?;
    if back != content {
        return Err("a file comes back with another content".to_owned().into());
    }
    let outside = resources.ask(Method::GET, "/files/..%2f..%2fetc%2fpasswd", "").await?;
    if (200..300).contains(&outside.status) {
        return Err("a file outside of the working directory can be read".to_owned().into());
    }
    ask(Method::DELETE, b"").await.and_then(Answer::good)?;
    let gone = ask(Method::GET, b"").await?;
    if gone.status == 404 { Ok(()) } else { Err(format!("a deleted file has status {}", gone.status).into()) }
}

pub(in crate::verify) async fn sources_are_told(trial: &Trial<'_>) -> Tried {
    let resources = trial.server(Interface::Resources)?;
    let ask = async |query| resources.ask(Method::GET, query, "").await;
    let answer = ask("/modules?q=ipybox.modinfo").await?.good()?;
    let sources: Value = serde_json::from_slice(&answer)?;
    let source = sources["ipybox.modinfo"].as_str().unwrap_or_default();
    if !source.contains("def print_module_sources") {
        return Err("the source of `ipybox.modinfo` is not what clients need".to_owned().into());
    }
    let unknown = ask("/modules?q=there_is_no_such_module").await?;
    if unknown.status == 404 {
        Ok(())
    } else {
        Err(format!("an unknown module has status {}", unknown.status).into())
    }
}

pub(in crate::verify) async fn tools_become_functions(trial: &Trial<'_>) -> Tried {
    let (gateway, resources) = (trial.server(Interface::Gateway)?, trial.server(Interface::Resources)?);
    let good = async |method, path: &str, body: Vec<u8>| {
        resources.ask(method, path, body).await.and_then(Answer::good)
    };
    good(Method::POST, "/files/verify_server.py", MCP_SERVER.into()).await?;
    let parameters = json!({ "command": "python", "args": ["/app/verify_server.py"] });
    let tools = good(Method::PUT, "/mcp/verify_tools/demo", parameters.to_string().into()).await?;
    if serde_json::from_slice::<Vec<String>>(&tools).ok().as_deref() != Some(&["add".to_owned()]) {
        return Err(format!("expected the tool `add`, found {}", String::from_utf8_lossy(&tools)).into());
    }
    let kernel = Kernel::start(&gateway).await?;
    let code = "import sys; sys.path.append('/app')\n\
                from verify_tools.demo.add import Params, add\n\
                print(add(Params(a=19, b=23)))";
    prints(&kernel, code, "sum 42\n").await?;
    Ok(kernel.end().await?)
}
