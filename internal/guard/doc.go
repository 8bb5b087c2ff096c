// Package guard is the http.Handler that stands between a caller and a resource and enforces what was granted, request
// by request. It exists apart from relay and agent so that either can mount the very same handler: everything it needs
// of the world are the func fields of [Guard].
//
// # The order
//
// Each request takes these steps, and a step that fails ends it:
//
//  1. the rule of local listeners, if the caller came through one ([LocalRule]);
//  2. framing: one unambiguous HTTP request, no upgrade, no tunnel, an origin-form target;
//  3. canonicalise and classify (internal/modelapi): action, models, and the bytes that will be sent;
//  4. Decide, for every model named. The rules for body fields belong right behind it;
//  5. Reserve, if there is one;
//  6. Record the decision: no byte goes upstream before it returned nil;
//  7. Forward, with headers by allow-list and the identity the relay vouches for;
//  8. stream the answer as it comes, or filter it if it is a list of models;
//  9. settle the reservation and Record the outcome.
//
// A refusal is answered in the dialect of the API that was called and is recorded exactly once.
//
// # Headers
//
// A model server gets the few headers that say something to it, its caller the few that belong to an answer; everything
// else, credentials and cookies among them, stops here. A plain HTTP resource (kind http) is an application that owns
// its origin on the user's machine: it keeps its own cookies, redirects, cross-origin rules and, unless they are the key
// to us, Authorization and X-Api-Key. For both kinds hop-by-hop fields, trailers and Alt-Svc stop here, and of the
// caller's headers all that an upstream could take for ours: X-Iap-*, X-Forwarded-* and their like, and any name with an
// underscore. Identity sets ours afterwards, so no Connection header can take them away.
//
// Protocol upgrades, WebSockets among them, are refused for both kinds. The mounting server should set
// DisableGeneralOptionsHandler, so that "OPTIONS *" meets the guard too.
//
// # Ends
//
// An answer that breaks off never ends cleanly: where the framing allows it an error event in the caller's protocol is
// written first, then the handler aborts the connection with [http.ErrAbortHandler]. A request's context whose cause is
// an [*Ended] does the same with that code.
package guard
