package embedded

// Space is the size of the disk under dir and what of it is free; both are 0 where
// it cannot be told.
func Space(dir string) (size, free int64) { return disk(dir) }
