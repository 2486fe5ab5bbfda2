//! Registries that tests start on the loopback, and a proxy that does to requests what networks do.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

pub mod image;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

pub const USER: &str = "somebody";
pub const PASSWORD: &str = "s3cret-of-the-registry";

/// What `htpasswd -B` writes of user and password.
const HTPASSWD: &str = "somebody:$2b$05$abcdefghijklmnopqrstuuW1e3orFpi1hSyUIjjQsvB7886Cb.S5.\n";

/// A registry with a folder of its own; gone with the value.
pub struct Registry {
    pub address: String,
    pub folder: tempfile::TempDir,
    process: Child,
}

impl Registry {
    /// One that anybody may write to.
    pub fn start() -> Self {
        Self::with(|_| String::new())
    }

    /// One that wants to know user and password.
    pub fn with_password() -> Self {
        Self::with(|folder| {
            let file = folder.join("htpasswd");
            fs::write(&file, HTPASSWD).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
        })
    }

    /// One with TLS, by an authority that nobody knows.
    pub fn with_tls() -> Self {
        Self::with(|folder| {
            let file = |name: &str| folder.join(name).display().to_string();
            let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
            run(Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
                .args([
                    "-days",
                    "2",
                    "-keyout",
                    &file("ca.key"),
                    "-out",
                    &file("ca.pem"),
                    "-subj",
                    "/CN=authority",
                ]));
            run(Command::new("openssl")
                .args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
                .args(["-keyout", &file("key.pem"), "-out", &file("request.pem")])
                .args(subject));
            run(Command::new("openssl")
                .args(["x509", "-req", "-in", &file("request.pem"), "-CA", &file("ca.pem"), "-CAkey"])
                .args([&file("ca.key"), "-CAcreateserial", "-copy_extensions", "copy", "-days", "2", "-out"])
                .arg(file("cert.pem")));
            format!("  tls:\n    certificate: {}\n    key: {}\n---\n", file("cert.pem"), file("key.pem"))
        })
    }

    /// The certificate of that authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A registry that wants tokens, and who gives them.
    pub fn with_tokens() -> (Self, Proxy) {
        let mut service = None;
        let registry = Self::with(|folder| {
            let started = token_service(folder);
            let settings = format!(
                "auth:\n  token:\n    realm: http://{}/token\n    service: registry of tests\n    issuer: tests\n    \
                 rootcertbundle: {}\n",
                started.address,
                folder.join("token.pem").display()
            );
            service = Some(started);
            settings
        });
        (registry, service.unwrap())
    }

    /// A folder with the login of [`USER`], as `DOCKER_CONFIG` names it.
    pub fn login(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let login = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let config = serde_json::json!({ "auths": { &self.address: { "auth": login } } });
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        folder
    }

    /// One with further settings, which may name files in its folder.
    pub fn with(settings: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let further = settings(folder.path());
        let (http, further) = further.split_once("---\n").unwrap_or(("", &further));
        let config = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: true\n  level: error\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n{http}{further}",
            folder.path().join("storage").display()
        );
        let file = folder.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        // What the environment says of registries would count before the file.
        command.env_clear();
        let process = command.spawn().expect("`docker-registry` of Debian's package of that name");
        let begun = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { address, folder, process }
    }

    /// How many uploads are not over.
    pub fn sessions(&self) -> usize {
        let uploads = "storage/docker/registry/v2/repositories/team/app/_uploads";
        // Of one that was ended an empty folder stays.
        let open = |folder: &fs::DirEntry| folder.path().join("startedat").exists();
        fs::read_dir(self.folder.path().join(uploads)).map_or(0, |all| all.flatten().filter(open).count())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A service that gives tokens as the distribution project's registry wants them, signed by a key in this folder.
fn token_service(folder: &Path) -> Proxy {
    let (key, certificate) = (folder.join("token.key"), folder.join("token.pem"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    let der: String =
        fs::read_to_string(&certificate).unwrap().lines().filter(|line| !line.starts_with("-----")).collect();
    let folder = folder.to_owned();
    let number = AtomicUsize::new(0);
    Proxy::before("", move |request| {
        let login = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        if request.header("authorization") != Some(&login) {
            return status("401 Unauthorized", "", "{}");
        }
        let query = request.path.split_once('?').unwrap().1.replace("%3A", ":").replace("%2F", "/");
        let scopes = query.replace("%2C", ",");
        let access: Vec<_> = scopes
            .split('&')
            .filter_map(|part| part.strip_prefix("scope=repository:"))
            .map(|scope| {
                let (name, actions) = scope.rsplit_once(':').unwrap();
                let actions: Vec<_> = actions.split(',').collect();
                serde_json::json!({"type": "repository", "name": name, "actions": actions})
            })
            .collect();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let number = number.fetch_add(1, Ordering::Relaxed);
        let head = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
        let claims = serde_json::json!({
            "iss": "tests", "aud": "registry of tests", "sub": USER, "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": number.to_string(), "access": access,
        });
        let [head, claims] = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{head}.{claims}");
        let file = folder.join(format!("token{number}"));
        fs::write(&file, &signed).unwrap();
        let key = folder.join("token.key");
        let output =
            Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(key).arg(&file).output().unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(output.stdout));
        status("200 OK", "", &serde_json::json!({"token": token, "expires_in": 300}).to_string())
    })
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A request without its body.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// Bytes of its body.
    pub size: usize,
    /// How many there were before it.
    pub number: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

/// What becomes of a request.
pub enum Fate {
    /// It is answered by who stands behind.
    Forward,
    /// The same without a header of it.
    Without(&'static str),
    /// It is answered, and this is written in place of a text of the answer's head.
    Instead(String, String),
    /// So many bytes of its body go on, and then nothing.
    Cut(usize),
    /// It is answered, and nobody hears it.
    Lose,
    /// It is answered, and so many bytes of the answer come.
    Half(usize),
    /// Nothing happens.
    Stall,
    /// Bytes that are not of who stands behind; its body is read first or not.
    Say(String),
    SayAtOnce(String),
}

/// A status, with headers and a body.
pub fn status(status: &str, headers: &str, body: &str) -> Fate {
    Fate::Say(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// Stands in front of a registry, sees all requests and decides their fate.
pub struct Proxy {
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Proxy {
    pub fn before(behind: &str, fate: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (fate, requests, behind) = (Arc::new(fate), seen.clone(), behind.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (fate, requests, behind) = (fate.clone(), requests.clone(), behind.clone());
                std::thread::spawn(move || {
                    // A client may go at any time.
                    let _ = answer(stream, &behind, &requests, &*fate);
                });
            }
        });
        Self { address, seen }
    }

    /// One that forwards everything.
    pub fn counting(behind: &str) -> Self {
        Self::before(behind, |_| Fate::Forward)
    }

    /// The requests since the last time.
    pub fn taken(&self) -> Vec<Request> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// The requests of a method.
pub fn count(requests: &[Request], method: &str) -> usize {
    requests.iter().filter(|request| request.method == method).count()
}

/// Reads a request up to its body.
fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = Vec::new();
    reader.take(8192).read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split_whitespace();
    let (Some(method), Some(path), Some("HTTP/1.1")) = (words.next(), words.next(), words.next()) else {
        return Ok(None);
    };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, headers, size: 0, number: 0 };
    request.size = request.header("content-length").map_or(0, |size| size.parse().unwrap());
    Ok(Some(request))
}

fn answer(
    stream: TcpStream,
    behind: &str,
    requests: &Mutex<Vec<Request>>,
    fate: &(dyn Fn(&Request) -> Fate + Send + Sync),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut client = stream;
    let Some(mut request) = read(&mut reader)? else { return Ok(()) };
    let fate = {
        let mut requests = requests.lock().unwrap();
        request.number = requests.len();
        requests.push(request.clone());
        drop(requests);
        fate(&request)
    };
    let mut forward = |limit, without| forward(&request, &mut reader, behind, limit, without);
    match fate {
        Fate::Forward => {
            std::io::copy(&mut forward(usize::MAX, "")?, &mut client)?;
        }
        Fate::Without(header) => {
            std::io::copy(&mut forward(usize::MAX, header)?, &mut client)?;
        }
        Fate::Instead(old, new) => {
            let mut bytes = Vec::new();
            forward(usize::MAX, "")?.read_to_end(&mut bytes)?;
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
            let head = String::from_utf8_lossy(&bytes[..end]).replace(&old, &new);
            client.write_all(head.as_bytes())?;
            client.write_all(&bytes[end..])?;
        }
        Fate::Cut(limit) => {
            let server = forward(limit, "")?;
            std::thread::sleep(Duration::from_millis(50));
            server.shutdown(Shutdown::Both)?;
            client.shutdown(Shutdown::Both)?;
        }
        Fate::Lose => {
            let mut server = forward(usize::MAX, "")?;
            server.read_to_end(&mut Vec::new())?;
        }
        Fate::Half(limit) => {
            let mut bytes = Vec::new();
            forward(usize::MAX, "")?.read_to_end(&mut bytes)?;
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            client.write_all(&bytes[..bytes.len().min(end + limit)])?;
        }
        Fate::Stall => std::thread::sleep(Duration::from_secs(60)),
        Fate::Say(text) => {
            std::io::copy(&mut (&mut reader).take(request.size as u64), &mut std::io::sink())?;
            client.write_all(text.as_bytes())?;
        }
        Fate::SayAtOnce(text) => client.write_all(text.as_bytes())?,
    }
    Ok(())
}

/// A registry for one blob, which keeps all bytes that come, however they end, and goes on behind them.
#[derive(Clone, Default)]
pub struct Keeping(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    received: usize,
    whole: bool,
}

impl Keeping {
    pub fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let kept = self.0.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                std::thread::spawn(move || keep(stream, &kept));
            }
        });
        address
    }

    /// Its blob, and how many bytes came for it.
    pub fn blob(&self) -> (Vec<u8>, usize) {
        let kept = self.0.lock().unwrap();
        (kept.bytes.clone(), kept.received)
    }
}

fn keep(mut stream: TcpStream, kept: &Mutex<Kept>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(request) = read(&mut reader)? else { return Ok(()) };
    let range =
        |kept: &Kept| format!("Location: /v2/up\r\nRange: 0-{}\r\n", kept.bytes.len().saturating_sub(1));
    let said = |status: &str, headers: &str| {
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n")
    };
    let is_blob = request.path.contains("/up") || request.path.contains("/blobs/");
    let start = request.header("content-range").map(|range| range.split('-').next().unwrap().to_owned());
    let answer = match request.method.as_str() {
        "HEAD" if is_blob && kept.lock().unwrap().whole => said("200 OK", ""),
        "HEAD" => said("404 Not Found", ""),
        "POST" => said("202 Accepted", "Location: /v2/up\r\n"),
        "GET" => said("204 No Content", &range(&kept.lock().unwrap())),
        "PATCH" if start != Some(kept.lock().unwrap().bytes.len().to_string()) => {
            std::io::copy(&mut reader.take(request.size as u64), &mut std::io::sink())?;
            said("416 Range Not Satisfiable", &range(&kept.lock().unwrap()))
        }
        _ => {
            let mut body = reader.take(request.size as u64);
            let mut block = vec![0; 64 << 10];
            loop {
                match body.read(&mut block) {
                    Ok(0) | Err(_) => break,
                    Ok(size) if is_blob => {
                        let mut kept = kept.lock().unwrap();
                        kept.bytes.extend_from_slice(&block[..size]);
                        kept.received += size;
                    }
                    Ok(_) => {}
                }
            }
            if body.limit() > 0 {
                return Ok(());
            }
            match request.method.as_str() {
                "PATCH" => said("202 Accepted", &range(&kept.lock().unwrap())),
                _ => {
                    kept.lock().unwrap().whole |= is_blob;
                    said("201 Created", "")
                }
            }
        }
    };
    stream.write_all(answer.as_bytes())
}

/// Sends a request on, with at most so many bytes of its body.
fn forward(
    request: &Request,
    body: &mut impl Read,
    behind: &str,
    limit: usize,
    without: &str,
) -> std::io::Result<TcpStream> {
    let mut server = TcpStream::connect(behind)?;
    let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", request.method, request.path);
    for (name, value) in &request.headers {
        if !name.eq_ignore_ascii_case("connection") && !name.eq_ignore_ascii_case(without) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    server.write_all(format!("{head}\r\n").as_bytes())?;
    std::io::copy(&mut body.take(request.size.min(limit) as u64), &mut server)?;
    Ok(server)
}

/// Runs a command to its end, which must be a good one, and returns what it prints.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
