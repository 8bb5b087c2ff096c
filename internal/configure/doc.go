// Package configure edits the settings of other people's tools so that they use a resource that iapctl makes local. It exists
// apart from the command line so that each edit is a function from text to text: what is not ours stays, byte for byte, with
// its comments and its order, and a file that is written in a way we do not understand is refused and never guessed at.
//
//	tools.go   which file a tool reads, and what is set in it
//	json.go    JSON, with comments and trailing commas where the tool allows them
//	toml.go    TOML: keys before the first table, and tables of our own
//	yaml.go    YAML: one item of a list
//	diff.go    what changes, for a person
package configure
