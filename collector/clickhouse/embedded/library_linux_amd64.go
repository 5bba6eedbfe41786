//go:build linux && amd64 && !noembedded

package embedded

import (
	"fmt"
	"os"
	"runtime"

	"github.com/ebitengine/purego"
)

const librarySupported = true

// ChildMain is the engine's process: it loads the library args[0] and runs it
// with the rest as its command line, until the engine ends. The engine's own
// exit status says nothing (it is 0 after errors, too).
func ChildMain(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "pellucid: start the engine: no library given")
		return 2
	}
	handle, err := purego.Dlopen(args[0], purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		fmt.Fprintf(os.Stderr, "pellucid: load engine %q: %v\n", args[0], err)
		return 1
	}
	entry, err := purego.Dlsym(handle, "chdb_query_cmdline")
	if err != nil {
		fmt.Fprintf(os.Stderr, "pellucid: load engine %q: %v\n", args[0], err)
		return 1
	}
	var run func(argc int32, argv **byte) uintptr
	purego.RegisterFunc(&run, entry)

	// The engine keeps pointers into argv for as long as it runs.
	var pins runtime.Pinner
	defer pins.Unpin()
	argv := make([]*byte, 0, len(args)+1)
	for _, a := range append([]string{"clickhouse"}, args[1:]...) {
		b := append([]byte(a), 0)
		pins.Pin(&b[0])
		argv = append(argv, &b[0])
	}
	argc := int32(len(argv))
	argv = append(argv, nil)
	pins.Pin(&argv[0])
	run(argc, &argv[0])
	return 0
}
