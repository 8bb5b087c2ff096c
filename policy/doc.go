// Package policy is the vocabulary of permission: what is asked (Input), what is
// answered (Decision) and what an operator writes down (Grants).
//
// It exists so that everything that asks or reports a decision shares plain
// structs and need not link the engine that makes it: package policy/rego
// evaluates, this package has no policy of its own. Parsed values are immutable
// and safe for concurrent use.
//
// # The grants file
//
//	version: 1                     # optional
//	grants:
//	  - name: engineers-chat       # unique; stands in decisions and audit records
//	    to: ["group:corp/ml-eng", "user:corp/8a7f3c", "claim:ci/repo=1234"]
//	    resources: ["phi3", "label:env=prod"]
//	    models: ["phi3:*"]         # optional: left out, every model
//	    actions: [chat, embed, list-models]
//	    media: [image]             # input besides text: image, audio, video, file; left out, all; [] text only
//	    require: {mfa: true, acr: [gold], max_auth_age: 12h, binding: nonce}
//	    limits:                    # one set of limits, or a list of which all hold
//	      - {requests: 60/1m, tokens: [20000/1h, 200000/24h], concurrent: 4, max_output_tokens: 2048}
//	      - {tokens: 5000000/30d, per: group, mode: warn, contact: "#ml-platform"}
//	    keys: {max_ttl: 90d}       # optional: programs may use it with a key
//	    priority: 10               # 0 to 1000
//	    record: true               # prompts and answers are recorded for an auditor; not with connect
//	    egress: true               # includes models that send prompts to another host
//	admins:
//	  - "user:corp/8a7f3c"         # every verb of the administration
//	  - to: ["group:corp/helpdesk"]
//	    verbs: ["iap:sessions.ls", "iap:sessions.kill"]
//	    require: {mfa: true}       # optional, as in a grant
//
// Of several grants the first in file order that allows decides, with its
// limits. What no grant allows is denied. Reading is strict: an unknown key, an
// empty list, a duplicate, a number out of range or an empty file is an error
// with file, line and column. Anchors, aliases and tags are not accepted.
//
// # To
//
// Entries match strings exactly, lists by member, and nothing else:
//
//	user:ISSUER/SUBJECT        the token's sub, never an e-mail address
//	group:ISSUER/GROUP         one of the token's groups
//	claim:ISSUER/NAME=VALUE    a claim that the issuer's configuration names
//	any:ISSUER                 every person of that issuer; no workload
//
// any: is for a provider that knows only one's own people. It never names a
// workload, because a public CI system gives a token to everybody, and it is not
// accepted under admins:.
//
// ISSUER is the alias of a configured provider. While there is only one, it may
// be left out. A first segment that equals the alias is then still the alias: with
// the single issuer corp, group:a/b is the group "a/b", group:corp/b is the group
// "b", and the group "corp/b" is written group:corp/corp/b. With a second issuer,
// an entry without alias is an error.
//
// # Resources and models
//
// A resource is named exactly, by a glob or by one label (label:KEY=VALUE, which
// matches exactly). Globs know two wildcards: * is any run of characters, ? is
// exactly one.
//
// Models are compared without regard to case, with the canonical name that the
// server itself would use. A pattern without a tag also names the tag latest, as
// model servers read it: phi3 is phi3 and phi3:latest, but not phi3:mini; phi3:*
// is every tag of it; phi* is everything that begins so. Where a grant lists
// models, a request that makes a model work (chat, complete, embed, rerank,
// transcribe, manage-model) must name one: some servers ignore the name or fill
// it in, and would answer with whatever they have loaded. Where the list has *,
// it need not.
//
// # Require
//
//	mfa: true            a second factor by any known source, the provider's own
//	                     policy included (for people; a program never has one)
//	mfa: asserted        a second factor stated in the token (amr, acr, acrs)
//	acr: [gold, silver]  the token's acr is one of these; a new login asks for them
//	                     in this order
//	max_auth_age: 12h    the person logged in less than this ago. A provider that
//	                     does not say when, or names a time in the future, fails it
//	binding: nonce       the token was made for the session's key
//	claims: {ci/environment: production, ci/event: [push, schedule]}
//	                     the token has each of these claims of that issuer, with
//	                     this value or one of the list
//
// # Admins
//
// What administrators do is a closed list of verbs (Verbs), each an action such as
// iap:sessions.kill. A selector by itself gives every verb, a mapping those it
// lists. No wildcard, no grant and no module gives one. A workload is an
// administrator only where user: names its subject. The first entry that names
// principal and verb, and whose require: holds, allows.
//
// # Limits
//
// Rates are AMOUNT/WINDOW, one or a list of which all hold. A limit left out does
// not limit; zero is an error, because it reads both ways. per says who shares
// the counters: principal (the default: everybody has their own), group (those who
// hold the grant by the same group; whoever holds it otherwise counts alone) or
// grant (all who use it). With mode: warn nothing is refused. contact stands in
// what a person reads when the limit is reached.
//
// # Keys
//
// A request that shows a program's key comes with the rights of the key's owner,
// and only by grants with keys:. max_ttl is how long after its creation a key may
// be used.
//
// Times are written as Go writes them, with days of 24 hours: 30m, 12h, 90d, 1d12h.
package policy
