package modelapi

import "strings"

// Kinds of resources, as they stand in join tokens, configuration and headers.
const (
	KindModel = "model" // a model server, whose requests this package understands
	KindHTTP  = "http"  // any other web server
	KindTCP   = "tcp"   // bytes
)

// Names of the model servers as agents announce them.
const (
	ServerOllama    = "ollama"
	ServerLlamaCPP  = "llama.cpp"
	ServerVLLM      = "vllm"
	ServerSGLang    = "sglang"
	ServerTGI       = "tgi"
	ServerLlamaSwap = "llama-swap"
	ServerOpenAI    = "openai" // any other that speaks the OpenAI API
)

// OnlyModel is the one model of a server that has no other or ignores the name in a request: it is what such a request
// is decided on, whatever its caller wrote. "" for servers that choose by name. Of a server that ignores names the
// first model announced is the one it runs: adapters that it lists beside it are no models of their own there. Relay
// and agent must agree on it.
func OnlyModel(server string, models []string) string {
	if len(models) == 0 || server == "" || server == Auto || server == ServerOllama {
		return ""
	}
	if len(models) == 1 || ignoresNames(server) {
		return models[0]
	}
	return ""
}

// ignoresNames says which servers run one model, whatever a request calls it.
func ignoresNames(server string) bool { return server == ServerSGLang || server == ServerTGI }

// MeantModel is the model that a request would be decided on, on this server, for the name that somebody wrote: the
// one behind an alias, in the server's own spelling; the only one where a server has no other. It is for questions
// about requests; requests themselves are read by Classify.
func MeantModel(server, only string, aliases map[string]string, name string) (model string, egress bool, err error) {
	isOllama := server == ServerOllama
	name, _ = aliasedModel(isOllama, aliases, name)
	if only != "" && !strings.HasPrefix(name, only+":") { // an adapter of it is a name of its own
		return only, isCloudName(only), nil
	}
	return canonicalModel(isOllama, name)
}
