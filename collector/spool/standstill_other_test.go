//go:build !unix

package spool

func ownTogether(Config) int { return 2 }
