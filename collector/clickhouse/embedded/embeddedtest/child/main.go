// Command child is nothing but the engine's child process. Tests built with the
// race detector run the engine from it.
package main

import (
	"fmt"
	"os"

	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
)

func main() {
	embedded.RunChildIfAsked()
	fmt.Fprintln(os.Stderr, "child: this program runs the engine for tests only")
	os.Exit(2)
}
