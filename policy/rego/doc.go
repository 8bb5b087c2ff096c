// Package rego evaluates the policy with OPA: the built-in module over the grants
// file, and modules of the operator's own.
//
// It exists to keep OPA in one place and behind one promise: an Engine never
// fails open. An undefined, malformed or contradictory answer, an error of a
// builtin, an exceeded deadline and an input that is no question are denials
// with a reason code.
//
// Most operators write grants.yaml and nothing else (see package policy). The
// rest of this page is for authors of modules.
//
// # The input document
//
//	{
//	  "principal": {
//	    "id": "corp/8a7f3c", "issuer": "corp", "subject": "8a7f3c",
//	    "groups": ["ml-eng"],
//	    "claims": {"repo": ["1234"]},
//	    "mfa": {"held": true, "asserted": true, "source": "amr"},
//	    "acr": "gold",
//	    "auth_time": 1795435200000000000,
//	    "binding": "nonce",
//	    "workload": false
//	  },
//	  "resource": {"name": "phi3", "kind": "model", "labels": {"env": "prod"}},
//	  "action": "chat",
//	  "model": "phi3:latest",
//	  "egress": false,
//	  "media": ["image"],
//	  "via": "tunnel"
//	}
//
// auth_time counts nanoseconds and is missing where the provider does not say or
// is not to be believed. mfa.held is true for every known source; mfa.asserted
// only where the token states it; source is amr, acr, acrs, issuer_policy or
// empty. action is one of the closed vocabulary, or "*" when the question is
// whether the principal may reach the resource at all: a rule about one action
// should not deny that one. model is empty where a request names none, media where
// there is but text. binding is nonce, first-use or none; via is tunnel, bearer, key
// (a program's, with the rights of its owner) or local. There is no clock in
// the input; time.now_ns() is the time of the decision.
//
// Three questions never reach a module: those of a principal whose groups the
// provider only referenced (groups_unknown), of an action outside the vocabulary
// (action_unknown), and without principal or resource (input_invalid).
//
// # The decision document
//
// data.iap.decision must be an object with these keys and no others:
//
//	allow      boolean, required
//	reason     code of lower-case letters, digits and _; "allowed" exactly when allow is true;
//	           left out, it is allowed or denied_by_rule
//	message    one line for the person, up to 1024 bytes
//	grant      name of what allowed it, up to 64 bytes
//	group      issuer/name of the group by which the grant applies, for limits per group
//	limits     {"requests": ["60/1m"], "tokens": ["200000/24h"], "concurrent": 4, "max_output_tokens": 2048,
//	           "per": "principal", "mode": "enforce", "contact": "#ml"}, or a list of such objects
//	keys       {"max_ttl": nanoseconds}, or null: keys may not do this. An answer that allows a key without
//	           it is a denial (keys_not_granted)
//	step_up    of a denial: {"mfa": true, "acr": "gold silver", "max_age": nanoseconds, "binding": "nonce"},
//	           the login that would cure it, or null
//	priority   0 to 1000
//	record     whether request and answer are recorded for an auditor, or do not pass
//	until      nanoseconds like time.now_ns(), or null: ask again from then on
//
// # Narrowing the built-in policy
//
// Messages that modules add to data.iap.deny turn any answer into a denial with
// the reason denied_by_rule:
//
//	package iap
//
//	deny contains "no model changes over the front door" if {
//		input.action == "manage-model"
//		input.via == "bearer"
//	}
//
// Administrators are named by admins: in the grants file, and no module makes one.
// Messages added to data.iap.admin_deny take a verb away; deny and decision do not
// speak of verbs. The input has principal, action (the verb) and via, and an empty
// resource. Root on the relay's machine is not asked about:
//
//	package iap
//
//	admin_deny contains "kills want a second factor that the token states" if {
//		input.action == "iap:sessions.kill"
//		not input.principal.mfa.asserted
//	}
//
// # Replacing it
//
// As soon as a module defines data.iap.decision, that rule decides and deny means
// nothing any more. The built-in answer stays at hand:
//
//	package iap
//
//	decision := data.iap.builtin.decision if not on_holiday
//
//	decision := {"allow": false, "reason": "on_holiday"} if on_holiday
//
// Who builds a new object from the built-in answer should pass its until on. It
// is when a grant's max_auth_age runs out, and a live stream ends by it.
//
// Grants are at data.grants: list holds them in file order; by.user, by.group,
// by.claim and by.any lead from issuer and name to a place in selectors, which
// hold places in list. So a decision costs the same with twenty grants as with
// two thousand: what counts is how many of them name both the principal and the
// resource (some 50 us each; a thousand of those would meet the deadline). Modules may
// define anything except data.iap.builtin, data.grants and data.system.
//
// # Restrictions
//
// Modules are Rego v1 in strict mode. They may call functions of their arguments
// and read the clock. A module that calls http.send, net.*, opa.runtime,
// rego.parse_module, io.jwt.*, crypto.*, random numbers or fetched schemas does not
// load, not even where a test only mocks them. An evaluation has 50 ms.
//
// Decisions are cached by the hash of the whole input until their until or the
// next reload. Once a module reads the clock nothing is cached.
//
// # Files
//
// A directory among the modules stands for the .rego files directly in it. Files
// that end in _test.rego are unit tests for Test and are not part of the policy.
// Changes are noticed and put in place as a whole; what does not load leaves the
// policy in place. Replace files by renaming: a file cut off in the middle may be
// a valid one, with a require line missing.
package rego
