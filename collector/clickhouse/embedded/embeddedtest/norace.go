//go:build !race

package embeddedtest

const raceEnabled = false
