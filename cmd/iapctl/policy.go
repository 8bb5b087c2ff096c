package main

import "github.com/spf13/cobra"

func (a *app) policyCommand() *cobra.Command {
	c := a.console()
	explain := c.Explain(true)
	explain.ValidArgsFunction = a.completeResources
	return group("policy COMMAND", "Ask what the policy says", `Ask the relay what its policy says. show and reload are for administrators.

To check, test or replay policy files use iap-relay, which holds the engine:
  iap-relay policy check
  iap-relay policy test
  iap-relay policy replay`, explain, c.PolicyShow(), c.PolicyReload())
}
