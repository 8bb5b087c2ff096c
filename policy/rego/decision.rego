# The entry point where no module defines data.iap.decision itself: the built-in
# policy, which the deny rules of other modules can only narrow.
package iap

import data.iap.builtin

decision := {
	"allow": false,
	"reason": "denied_by_rule",
	"message": concat("; ", deny),
} if {
	count(deny) > 0
}

else := builtin.decision

# The set exists even where nobody adds to it.
deny contains message if some message in set()
