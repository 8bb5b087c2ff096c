package modelapi

// isKnownName says whether a folded name is that of a request field to which some server gives a meaning that matters
// here. In another letter case it is that field to a lenient parser and nothing to a strict one, so it is refused.
func isKnownName(folded string) bool {
	switch folded {
	case "abort_all", "action", "adapter_id", "adapters", "audio_url", "best_of", "bootstrap_host", "bootstrap_port", "bootstrap_room",
		"cache_salt", "chat_template", "chat_template_kwargs", "continuous_usage_stats", "conversation", "custom_logit_processor",
		"destination", "ec_transfer_params", "encoding_format", "filename", "files", "from", "id", "id_slot",
		"image_url", "images", "include_usage", "input", "input_audio", "input_embeds", "input_extra", "input_prefix",
		"input_suffix", "instances", "instructions", "keep_alive", "kv_transfer_params", "lora", "lora_id", "lora_name",
		"lora_path", "max_completion_tokens", "max_new_tokens", "max_output_tokens", "max_tokens", "messages",
		"metadata", "model", "n", "n_cmpl", "n_discard", "n_predict", "name", "num_ctx", "num_gpu",
		"num_predict", "options", "parameters", "previous_response_id", "priority", "prompt", "prompt_embeds",
		"query", "raw", "remote_host", "request_id", "response_fields", "return_hidden_states", "rid",
		"routed_dp_rank", "sampling_params", "session_id", "session_params", "source", "stop", "store", "stream",
		"stream_options", "suffix", "system", "template", "think", "timings_per_token", "tool_choice", "tools",
		"top_k", "top_p", "truncate", "user", "user_id", "video_url", "vllm_xargs":
		return true
	}
	return rules().names[folded]
}
