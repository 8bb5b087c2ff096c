# The built-in policy: grants.yaml, evaluated. Its answer is
# data.iap.builtin.decision; policies ask for data.iap.decision, which is this
# one unless a module of the operator defines its own (see decision.rego).
package iap.builtin

import data.grants

# Of several grants the first in file order that allows decides.
decision := {
	"allow": true,
	"reason": "allowed",
	"grant": grant.name,
	"limits": grant.limits,
	"priority": grant.priority,
	"until": until(grant),
} if {
	grant := grants.list[winner]
}

# Otherwise the most telling reason is that of the grants which came closest.
else := {"allow": false, "reason": "no_grant"} if count(selectors) == 0

else := {"allow": false, "reason": "resource_not_granted"} if count(naming_resource) == 0

else := {"allow": false, "reason": "model_not_granted"} if count(naming_model) == 0

else := {"allow": false, "reason": "action_not_granted"} if count(naming_action) == 0

else := {"allow": false, "reason": "egress_not_granted"} if count(allowing_egress) == 0

else := {"allow": false, "reason": unmet(closest)[0], "grant": grants.list[closest].name}

winner := min({i | some i in allowing_egress; met(i)})

closest := min(allowing_egress)

# The selectors that name the principal, by their place in data.grants.selectors.
selectors contains grants.by.user[input.principal.issuer][input.principal.subject]

selectors contains s if {
	some group in input.principal.groups
	s := grants.by.group[input.principal.issuer][group]
}

selectors contains s if {
	some name, values in input.principal.claims
	some value in values
	s := grants.by.claim[input.principal.issuer][name][value]
}

selectors contains s if {
	not input.principal.workload
	s := grants.by.any[input.principal.issuer]
}

# Their grants by what they name, each stage within the one before. A grant is
# known by its place in data.grants.list.
naming_resource contains i if {
	some s in selectors
	some i in grants.selectors[s].named[input.resource.name]
}

naming_resource contains i if {
	some s in selectors
	some i in grants.selectors[s].open
	resource_named(i)
}

naming_model contains i if {
	some i in naming_resource
	model_named(i)
}

naming_action contains i if {
	some i in naming_model
	action_named(i)
}

allowing_egress contains i if {
	some i in naming_action
	egress_allowed(i)
}

resource_named(i) if name_listed(input.resource.name, grants.list[i].resources)

resource_named(i) if {
	some label in grants.list[i].resources.labels
	input.resource.labels[label.key] == label.value
}

# A grant without models means all of them. Where it lists some, a request that
# names none passes only if its action makes no model work.
model_named(i) if not grants.list[i].models

model_named(_) if {
	input.model == ""
	not input.action in {"chat", "complete", "embed", "rerank", "transcribe", "manage-model"}
}

model_named(i) if name_listed(lower(input.model), grants.list[i].models)

# Names stand as they are, globs with one * at their end as prefixes, all others
# as regular expressions.
name_listed(name, list) if list.names[name]

name_listed(name, list) if strings.any_prefix_match(name, list.prefixes)

name_listed(name, list) if {
	some expression in list.globs
	regex.match(expression, name)
}

action_named(_) if input.action == "*"

action_named(i) if grants.list[i].actions[input.action]

egress_allowed(_) if not input.egress

egress_allowed(i) if grants.list[i].egress

# Requirements on the login.
met(i) if not grants.list[i].require

met(i) if {
	mfa_met(i)
	age_met(i)
	binding_met(i)
}

unmet(i) := array.concat(
	[reason | reason := "mfa_required"; not mfa_met(i)],
	array.concat(
		[reason | reason := "auth_too_old"; not age_met(i)],
		[reason | reason := "binding_required"; not binding_met(i)],
	),
)

mfa_met(i) if not grants.list[i].require.mfa

mfa_met(i) if {
	grants.list[i].require.mfa == "true"
	input.principal.mfa.held
}

mfa_met(i) if {
	grants.list[i].require.mfa == "asserted"
	input.principal.mfa.asserted
}

age_met(i) if not grants.list[i].require.max_auth_age

age_met(i) if time.now_ns() < input.principal.auth_time + grants.list[i].require.max_auth_age

binding_met(i) if not grants.list[i].require.binding

binding_met(i) if grants.list[i].require.binding == input.principal.binding

# When a decision must be asked for again; null: only when something changes.
until(grant) := input.principal.auth_time + grant.require.max_auth_age if grant.require.max_auth_age

until(grant) := null if not grant.require.max_auth_age
