//go:build race

package embeddedtest

const raceEnabled = true
