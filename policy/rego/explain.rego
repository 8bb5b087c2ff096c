# How each grant fares with an input, all checks made by themselves.
package iap.builtin

import data.grants

naming_principal contains i if {
	some s in selectors
	some i in grants.selectors[s].all
}

explanation := [row |
	some i, _ in grants.list
	row := {
		"principal": i in naming_principal,
		"resource": i in {i | resource_named(i)},
		"model": i in {i | model_named(i)},
		"action": i in {i | action_named(i)},
		"egress": i in {i | egress_allowed(i)},
		"media": i in {i | media_allowed(i)},
		"keys": i in {i | key_allowed(i)},
		"unmet": unmet(i),
	}
]
