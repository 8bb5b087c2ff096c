// Package guard is the http.Handler that stands between a caller and a resource and enforces what was granted, request
// by request. It exists apart from relay and agent so that either can mount the very same handler: everything it needs
// of the world are the func fields of [Guard].
//
// # The order
//
// Each request takes these steps, and a step that fails ends it:
//
//  1. the rule of local listeners, if the caller came through one ([LocalRule]);
//  2. framing: one unambiguous HTTP request, no tunnel, an origin-form target, at most the handshake of a WebSocket;
//  3. canonicalise and classify (internal/modelapi): action, models, and the bytes that will be sent;
//  4. ids: what the request refers to must have been handed out to this caller;
//  5. Decide, for every model named, the action and whatever else the body asks for;
//  6. Reserve what it may cost, under the grant of the first decision;
//  7. rewrite: the body says what decision and reservation allow, and who asks;
//     and Keep it, if the decision demands a recording: what cannot be recorded does not pass;
//  8. Record the decision: no byte goes upstream before it returned nil;
//  9. Forward, with headers by allow-list and the identity the relay vouches for, to the agent whose ids it names;
//  10. stream the answer as it comes, counting (internal/modelapi/meter), or filter it if it is a list of models;
//  11. settle the reservation and Record the outcome.
//
// A refusal is answered in the dialect of the API that was called and is recorded exactly once.
//
// # Rooms
//
//	guard.go         what the mounting side gives and gets
//	handler.go       the steps, in their order
//	local.go, framing.go   who may ask at all, and in which form
//	body.go, limits.go   the body, and how much of bodies is in memory
//	owned.go, reserve.go   ids and limits of the caller's
//	header.go        what passes beside the body
//	answer.go, stream.go, gone.go   the answer: its kind, its bytes, one that names what is there instead
//	reader.go, usage.go   how long a reader may take, and what it is charged
//	keep.go          what is written down for an auditor
//	upgrade.go       WebSockets
//	live.go          answers that run
//	refuse.go, event.go   what a refusal says, what is recorded
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
// Protocol upgrades are refused, but for WebSockets on the routes of a model server that have one. The mounting server
// should set DisableGeneralOptionsHandler, so that "OPTIONS *" meets the guard too.
//
// # What a request costs
//
// Before it is sent, the input of a request that makes a model read is taken for a quarter of its prompt's bytes,
// rounded up, and 16 tokens for the template around it. Its output is what it asks for, times the answers it asks for,
// or 4,096 tokens for each where it does not say and a limit counts tokens; never more than its decision allows. What
// the reservation leaves for each answer is written into the body, so that the server itself stops there.
//
// While the answer flows, the meter's running count is told to the reservation piece by piece. One that is used up cuts
// the answer with an error event that names the limit. An answer of one piece is there already, and only charged.
//
// In the end the server's own figures are charged, else the running ones, else what was counted; where a server says
// nothing of the input, its estimate. Whoever leaves before an answer came is charged its input and, if the answer was to
// come in one piece, 100 tokens for each second and answer waited for, up to what was reserved: nobody saw how far it
// was. A refusal of the model server's, an agent that is not there, lists and the
// health check cost no tokens.
//
// # Ids
//
// What a server hands out (the id of a response, of a session) is noted as the caller's before a byte of it passes, or
// the answer is cut. A request that names an id must be its owner's, and goes to the agent that has it. All others get
// 404 unknown_id, whether there is such an id or not.
//
// # WebSockets
//
// A request for one is a method of its own, WEBSOCKET, in questions and records. Its handshake passes in one plain form,
// without extensions, which could hide what is in a frame. What is in its frames is not read: the model named there is
// not the guard's to see. So it is decided on as a request that names no model, which a grant with a list of models does
// not allow unless the server has only one; and where tokens are limited or an answer's length is, it is refused with
// websocket_limited. It ends with its right like any answer: with a close frame (1008) if one fits, else it breaks.
// HTTP/2 carries none.
//
// # Ends
//
// An answer that breaks off never ends cleanly: where the framing allows it an error event in the caller's protocol is
// written first, then the handler aborts the connection with [http.ErrAbortHandler]. A request's context whose cause is
// an [*Ended] does the same with that code.
package guard
