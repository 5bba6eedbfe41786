package collector

// GoneError says that a folder which was in use has been taken out of the data folder, or
// that another is in its place: nothing is written to that, and nothing read or removed.
type GoneError struct{ Folder string }

func (e *GoneError) Error() string {
	return "the folder " + e.Folder + " of the data folder is gone, or another is in its place: put it back, or start the server anew, which begins another"
}
