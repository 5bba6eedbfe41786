//go:build !unix

package main

// runHostileIfAsked is nothing where there are no limits of addresses.
func runHostileIfAsked() {}
