WORD = "odd"
