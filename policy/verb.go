package policy

// Verbs of the relay's administration, a closed list. An entry of admins: gives
// them; no grant and no wildcard does.
const (
	VerbStatus            = "iap:status.read"        // how the relay is
	VerbSessionsList      = "iap:sessions.ls"        // the live sessions of everybody
	VerbSessionsKill      = "iap:sessions.kill"      // end a login's sessions
	VerbAgentsList        = "iap:agents.ls"          // the enrolled agents
	VerbAgentsToken       = "iap:agents.token"       // list, make and revoke join tokens
	VerbAgentsRevoke      = "iap:agents.revoke"      // refuse an agent
	VerbAgentsRotate      = "iap:agents.rotate"      // have an agent take a new key
	VerbPrincipalsList    = "iap:principals.ls"      // who is known, live or revoked
	VerbPrincipalsRevoke  = "iap:principals.revoke"  // refuse a principal
	VerbPrincipalsRestore = "iap:principals.restore" // take that back
	VerbResourcesList     = "iap:resources.ls"       // every resource, with its agents' health and load
	VerbBudgetsShow       = "iap:budgets.show"       // what others have used
	VerbBudgetsReset      = "iap:budgets.reset"      // forget it
	VerbKeysList          = "iap:keys.ls"            // everybody's keys for programs
	VerbKeysRevoke        = "iap:keys.revoke"        // end one
	VerbPolicyShow        = "iap:policy.show"        // the grants in force
	VerbPolicyExplain     = "iap:policy.explain"     // what the policy says of others
	VerbPolicyReload      = "iap:policy.reload"      // read the policy's files again
	VerbAuditRead         = "iap:audit.read"         // read the audit log
	VerbUsageRead         = "iap:usage.read"         // what others have used, added up
	VerbRelayRotate       = "iap:relay.rotate"       // have the relay take a new key
)

// Verbs lists every verb that an entry of admins: may name, in the order of the
// documentation.
func Verbs() []string {
	return []string{
		VerbStatus, VerbSessionsList, VerbSessionsKill, VerbAgentsList, VerbAgentsToken, VerbAgentsRevoke, VerbAgentsRotate,
		VerbPrincipalsList, VerbPrincipalsRevoke, VerbPrincipalsRestore, VerbResourcesList, VerbBudgetsShow, VerbBudgetsReset,
		VerbKeysList, VerbKeysRevoke, VerbPolicyShow, VerbPolicyExplain, VerbPolicyReload, VerbAuditRead, VerbUsageRead, VerbRelayRotate,
	}
}
