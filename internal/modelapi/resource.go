package modelapi

// Kinds of resources, as they stand in join tokens, configuration and headers.
const (
	KindModel = "model" // a model server, whose requests this package understands
	KindHTTP  = "http"  // any other web server
	KindTCP   = "tcp"   // bytes
)

// Names of the model servers as agents announce them.
const (
	ServerOllama   = "ollama"
	ServerLlamaCPP = "llama.cpp"
	ServerVLLM     = "vllm"
	ServerSGLang   = "sglang"
	ServerTGI      = "tgi"
)

// OnlyModel is the one model of a server that has no other and ignores the name in a request: it is what such a request
// is decided on, whatever its caller wrote. "" for servers that choose by name. Relay and agent must agree on it.
func OnlyModel(server string, models []string) string {
	if len(models) == 1 && server != "" && server != ServerOllama {
		return models[0]
	}
	return ""
}
