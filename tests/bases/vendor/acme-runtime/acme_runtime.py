WORD = "runtime"
