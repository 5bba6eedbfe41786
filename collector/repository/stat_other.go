//go:build !linux && !darwin

package repository

// identity is not asked of this system: size and time stand for a file here.
func identity(string) string { return "" }
