package events

import (
	"fmt"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// BenchmarkPair takes a request, which waits in a file, and its response, with which both are
// recorded and the file goes.
func BenchmarkPair(b *testing.B) {
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("sync=%t", sync), func(b *testing.B) {
			rec := &record{known: map[string]bool{}}
			rig := &rig{dir: b.TempDir(), rec: rec, clock: &clock{now: began}}
			room, err := open(rig.config(func(c *Config) { c.Sync = sync }), vfs.OS{})
			if err != nil {
				b.Fatal(err)
			}
			for i := range b.N {
				if i%1000 == 0 {
					rec.rows = map[string]*collector.Imported{} // what is recorded is not what is measured
				}
				id := fmt.Sprint(i)
				for _, e := range []Event{event(request, id, "m", `{"instances":[1]}`), event(response, id, "m", `{"predictions":[1]}`)} {
					if _, err := room.Take(b.Context(), e); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
