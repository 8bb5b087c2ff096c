// Package modelapi knows the HTTP APIs of model servers: which route does what, which model it names, how its answer
// is framed, and what an error looks like to its clients. It exists so that relay, agent and command line judge one
// request by one table, each for itself, and come to the same words.
//
// The package does no input or output. [Table.Classify] takes a request's method, raw path, raw query and body and
// gives back a [Class]: the action of the closed vocabulary, the models named, and the one canonical form (target and
// body) that is decided on, recorded and forwarded. Whatever two parsers could read in two ways is refused, never
// cleaned: a percent-encoding outside a path parameter, an empty or dot segment, a duplicate JSON name (after case
// folding), a known name in another case, invalid UTF-8, trailing data.
//
// # Data
//
// data/model-apis.json lists the handlers of the servers, one row each, with the source that was read;
// data/openai.json adds the routes of a server about which no more is known than that it is OpenAI-compatible.
// A server is switched on by its name in [Servers]; rows of other servers lie ready.
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
package modelapi
