package embedded

// disk is not told: the engine does not run here.
func disk(string) (size, free int64) { return 0, 0 }
