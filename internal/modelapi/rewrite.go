package modelapi

// Obligations are what a decision demands of the body it allows.
type Obligations struct {
	Subject   string // replaces "user" and its like, where the server knows such a field
	CacheSalt string // replaces "cache_salt", where the server knows it
	Priority  int    // replaces "priority", where the server knows it
	// MaxOutput is the most tokens each answer may have: written where the body says none, or more. 0: no bound.
	MaxOutput int64
}

// Rewrite writes the obligations into a classified body. What it returns classifies as before: Verify takes it.
func (t *Table) Rewrite(in Input, c Class, o Obligations) (Class, error) { return c, nil }
