package agent

// Secrets are the values of this configuration that no report may hold.
func (c *Config) Secrets() []string {
	var all []string
	for _, r := range c.Resources {
		all = append(all, r.apiKey)
	}
	return all
}

// SecretFiles are the agent's key and, while it changes, the one to come.
func (c *Config) SecretFiles() []string { return []string{c.KeyFile, c.KeyFile + ".next"} }
