package embedded

import "os"

// childCommand is the hidden subcommand that turns this binary into the engine.
const childCommand = "__clickhouse"

// RunChildIfAsked must be the first thing a main or TestMain calls. Where the
// process was started as the engine's child (`EXE __clickhouse LIBRARY ARGS...`)
// it becomes the engine and never returns; otherwise it does nothing.
func RunChildIfAsked() {
	if len(os.Args) > 1 && os.Args[1] == childCommand {
		os.Exit(ChildMain(os.Args[2:]))
	}
}
