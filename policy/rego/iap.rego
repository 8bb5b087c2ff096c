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
	"keys": keys(grant),
	"priority": grant.priority,
	"record": object.get(grant, "record", false),
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

else := {"allow": false, "reason": "media_not_granted"} if count(allowing_media) == 0

else := {"allow": false, "reason": "keys_not_granted"} if count(admitting) == 0

else := {
	"allow": false,
	"reason": "claims_required",
	"grant": grants.list[min(admitting)].name,
} if count(bearing) == 0

else := {
	"allow": false,
	"reason": unmet(closest)[0],
	"grant": grants.list[closest].name,
	"step_up": step_up(grants.list[closest].require),
}

winner := min({i | some i in bearing; met(i)})

closest := min(bearing)

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

# All that the request itself must be; what is left is what the token must be.
admitting contains i if {
	some i in naming_action
	egress_allowed(i)
	media_allowed(i)
	key_allowed(i)
}

# Those whose required claims the token has. They come before the rest of require,
# which a new login can cure; a claim is the provider's to give.
bearing contains i if {
	some i in admitting
	claims_met(i)
}

# Only for the reason of a denial.
allowing_egress contains i if {
	some i in naming_action
	egress_allowed(i)
}

allowing_media contains i if {
	some i in allowing_egress
	media_allowed(i)
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

media_allowed(_) if not input.media[0]

media_allowed(i) if not grants.list[i].media

media_allowed(i) if {
	every kind in input.media {
		grants.list[i].media[kind]
	}
}

key_allowed(_) if not input.via == "key"

key_allowed(i) if grants.list[i].keys

keys(grant) := grant.keys if grant.keys

keys(grant) := null if not grant.keys

# Requirements on the login.
met(i) if not grants.list[i].require

met(i) if {
	mfa_met(i)
	acr_met(i)
	age_met(i)
	binding_met(i)
}

unmet(i) := [reason |
	some check in [
		["claims_required", {true | claims_met(i)}],
		["mfa_required", {true | mfa_met(i)}],
		["acr_required", {true | acr_met(i)}],
		["auth_too_old", {true | age_met(i)}],
		["binding_required", {true | binding_met(i)}],
	]
	check[1] == set()
	reason := check[0]
]

# What a login must be that holds all the requirements at once.
step_up(require) := {
	"mfa": count({true | require.mfa}) > 0,
	"acr": concat(" ", object.get(require, "acr", [])),
	"max_age": object.get(require, "max_auth_age", 0),
	"binding": object.get(require, "binding", ""),
}

claims_met(i) if not grants.list[i].require.claims

claims_met(i) if {
	every claim in grants.list[i].require.claims {
		claim_held(claim)
	}
}

claim_held(claim) if {
	claim.issuer == input.principal.issuer
	some value in input.principal.claims[claim.name]
	claim.values[value]
}

mfa_met(i) if not grants.list[i].require.mfa

mfa_met(i) if {
	grants.list[i].require.mfa == "true"
	input.principal.mfa.held
}

mfa_met(i) if {
	grants.list[i].require.mfa == "asserted"
	input.principal.mfa.asserted
}

acr_met(i) if not grants.list[i].require.acr

acr_met(i) if input.principal.acr in grants.list[i].require.acr

age_met(i) if not grants.list[i].require.max_auth_age

age_met(i) if time.now_ns() < input.principal.auth_time + grants.list[i].require.max_auth_age

binding_met(i) if not grants.list[i].require.binding

binding_met(i) if grants.list[i].require.binding == input.principal.binding

# When a decision must be asked for again; null: only when something changes.
until(grant) := input.principal.auth_time + grant.require.max_auth_age if grant.require.max_auth_age

until(grant) := null if not grant.require.max_auth_age
