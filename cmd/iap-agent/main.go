// Command iap-agent runs beside a model server and dials out to the relay, so
// that the model server needs no inbound port.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"iap/internal/servercmd"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is the whole program.
func run(args []string) int { return servercmd.Execute(newRoot(), args) }

func newRoot() *cobra.Command {
	return servercmd.Root("iap-agent", "The private side of an identity-aware tunnel for language models",
		runCommand(), joinCommand(), checkCommand(), diagCommand(), rotateCommand(), witnessCommand(), versionCommand())
}
