// Package modelapi knows the HTTP APIs of model servers: which route does what, which model it names, how its answer
// is framed, and what an error looks like to its clients. It exists so that relay, agent and command line judge one
// request by one table, each for itself, and come to the same words.
//
// The package does no input or output. [Table.Classify] takes a request's method, raw path, raw query and body and
// gives back a [Class]: the action of the closed vocabulary, the models named, and the one canonical form (target and
// body) that is decided on, recorded and forwarded. Whatever two parsers could read in two ways is refused, never
// cleaned: a percent-encoding outside a path parameter, an empty or dot segment, a duplicate JSON name (after case
// folding), a known name in another case, invalid UTF-8, trailing data. [Table.Verify] is the second check, of a
// request that claims to be canonical.
//
// # Rooms
//
// What a request is:
//
//	class.go          the words: actions, protocols, framings, a request and its class
//	resource.go       kinds of resources, names of servers, the only model of one
//	table.go, route.go, place.go, union.go, corrections.go   data made routes, and which of them a request takes
//	classify.go       one request from its path to its class, and the second check
//	path.go, opaque.go   paths that two parsers read in the same way; those of requests that are not read
//
// What its body says:
//
//	body.go, json.go, form.go, encoding.go   the body as a whole, in each of its forms
//	value.go, edit.go    single values of canonical JSON; an object under change
//	model.go, names.go, adapter.go, ids.go   what it names
//	fields.go            names that count, in no other letter case
//	rules.go, rules_apply.go, rules_content.go, media.go   fields that are security decisions; what the model would read
//	rewrite.go           what a decision writes into it
//
// What is answered:
//
//	list.go, errors.go   a list of models without those that are not the caller's; errors in each dialect
//	meter                what an answer costs
//
// # Data
//
// data/model-apis.json lists the handlers of the servers, one row each, with the source that was read;
// data/openai.json adds the routes of a server about which no more is known than that it is OpenAI-compatible.
// data/corrections.json changes what is wrong or too coarse in single rows, with the reason. A path that only the
// server's environment knows, a wildcard, and a handler that hands the request on to others make no route: what they
// match is [Unknown], like all that stands in no row. A row's method WEBSOCKET is a GET that asks for one.
//
// # Bodies
//
// A JSON body is forwarded re-serialised. A form passes on the routes that take sound, and nowhere else; it is read by
// one strict grammar and written anew, with a boundary that is a digest of its parts, a neutral file name and no header
// that is not needed: [Class].ContentType has the new boundary. A gzip or zstd body is unfolded under a bound of size and
// of ratio, and forwarded plain. Files of models (Ollama's POST /api/blobs) do not pass: they are larger than any body
// here, and have been the beginning of attacks on the server.
//
// # Body rules
//
// data/body-rules.json lists the fields of a body that are security decisions, each with what becomes of it, why, and
// where that was read. Classify strips and refuses by it, notes the media, the tools of the server's own, the number of
// answers and the size of the prompt; media must be in the body itself, since a model server fetches nothing for its
// callers. [Table.Rewrite] writes what a decision demands: the cap into the field that the server obeys, the caller's
// name, the cache's salt, the option by which a stream tells its cost. Its result is canonical: Verify takes it, and
// writing the same again changes nothing.
//
// # Model names
//
// Ollama reads Llama3, library/llama3 and registry.ollama.ai/library/llama3:latest as one model. Its names are brought
// to the shortest spelling, lower case, always with a tag: llama3:latest. On other servers names are exact.
// A name that sends the prompt out of the house (":cloud", "-cloud") sets [Class].Egress.
//
// Wherever a model would work the request must name it, or the server must have but one ([OnlyModel]): no server gets to
// choose. SGLang and TGI run their one model whatever the request calls it, so that model is decided on; TGI takes any
// name in a body for an adapter's, so there it is forwarded as "tgi". Where models are managed a name means what it says.
//
// An adapter (LoRA) makes another model of a model. A request with one names both "base:adapter", which is its
// [Class].Model, and the base: a decision must hold for each, and a grant of the base alone does not. SGLang's
// "base:adapter" and lora_path, TGI's adapter_id and llama.cpp's lora (adapters by number: "base:lora-0"; an empty list
// is "base:lora-none") are read so; vLLM's adapters are models of their own, by name.
//
// An alias is resolved before anything is decided, and never in a request that manages models.
//
// # Ids
//
// What a server keeps for its callers it tells to anyone who knows the id. [Class].IDs are those a request refers to,
// in its path, query or body; all must be the caller's. [Class].Hands says which kind the answer hands out. Only ids of
// responses and of SGLang's sessions can be read from an answer; running requests and llama.cpp's conversations are
// nobody's, so nobody may name them. Lists of living ids are [Observe].
package modelapi
