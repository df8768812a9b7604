package repo

// CoresFrom lets tests show a file system of their own.
var CoresFrom = coresFrom
