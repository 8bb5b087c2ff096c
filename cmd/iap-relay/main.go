// Command iap-relay is the public process of the tunnel: identity, policy,
// limits and audit, between users and the agents that dial out to it.
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
	return servercmd.Root("iap-relay", "The public side of an identity-aware tunnel for language models",
		runCommand(), initCommand(), checkCommand(), diagCommand(), policyCommand(), adminCommand(), auditCommand(), stateCommand(), backupCommand(), restoreCommand(), devCommand(), versionCommand())
}
