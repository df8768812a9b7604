// Package config reads static configuration: strict YAML into a struct.
//
// Load reports every mistake at once, each with the path of its key and its line:
// unknown keys, wrong types, and whatever the struct's own Validate finds. Field names are the
// yaml tags. Values are plain data; a loaded configuration does not change while the process runs.
package config
