//go:build !linux || !amd64 || noembedded

package embedded

import (
	"fmt"
	"os"
)

const librarySupported = false

// ChildMain cannot load the engine's library in this build; it says so.
func ChildMain([]string) int {
	fmt.Fprintln(os.Stderr, "pellucid: start the engine: this build has no embedded engine; "+Ways)
	return 2
}
