// Package config reads the product's configuration files: strict YAML into
// plain structs. It exists so that every file the product reads answers a
// mistake in the same way: with file, line, the key that is unknown and the
// nearest one that is known.
package config
