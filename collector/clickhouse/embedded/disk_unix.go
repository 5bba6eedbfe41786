//go:build unix

package embedded

import "golang.org/x/sys/unix"

// disk is the size of the disk that dir is on and what is free of it, both 0 where
// that cannot be told.
func disk(dir string) (size, free int64) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0
	}
	block := int64(st.Bsize) //nolint:unconvert // the types differ by platform
	return int64(st.Blocks) * block, int64(st.Bavail) * block
}
