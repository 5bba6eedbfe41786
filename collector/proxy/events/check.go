package events

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector/vfs"
)

// Report is what Check finds in a room's folder.
type Report struct {
	// Waiting are the halves that wait, Oldest is when the first of them came, Damaged those of
	// them whose file is not what was written; Aside are files that were set aside as such.
	Waiting, Damaged, Aside int
	Oldest                  time.Time
	// Missing are halves that are named and have no file. Where that is not Sure, they may have
	// been recorded when the machine went down. Unnamed have a file and are not named.
	Missing, Unnamed int
	Sure             bool
	// Whole is false where the list, or its header, is gone or damaged, and there must be one.
	Whole bool
	// OtherKey says that what waits is encrypted under another key than the one given.
	OtherKey bool
	// Lately is what was dropped last, without a pause of LatelyFor, At when that ended.
	Lately Dropped
	At     time.Time
}

// Check looks at a room's folder and changes nothing. A server may use it meanwhile.
func Check(dir string, key func() ([]byte, error)) (Report, error) {
	r := &Room{cfg: Config{Dir: dir, Key: key}, disk: vfs.OS{}, waiting: map[place]entry{}}
	l, raw, err := readList(r.disk, r.listPath())
	if err != nil {
		return Report{}, err
	}
	out := Report{Whole: l.whole && l.damaged == 0, Lately: l.Lately, At: l.At}
	out.Sure = l.sure(vfs.BootID(r.disk, vfs.BootIDPath))
	entries, err := r.disk.List(dir)
	if err != nil {
		return Report{}, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), aside) {
			out.Aside++
		}
		p, ending, ok := halfFile(e.Name())
		if !ok {
			continue
		}
		if err := out.open(r, l, p, ending == suffixAlone); err != nil {
			return out, err
		}
	}
	out.Whole = out.Whole || raw == nil && out.Waiting == 0
	again, _, err := readList(r.disk, r.listPath()) // what is named no more is recorded
	if err != nil {
		return out, err
	}
	for p := range l.places {
		_, named := again.places[p]
		if named && !r.there(r.named(p, suffix)) && !r.there(r.named(p, suffixAlone)) {
			out.Missing++
		}
	}
	return out, nil
}

// open looks into a half's file.
func (out *Report) open(r *Room, l onList, p place, alone bool) error {
	if r.sealer == nil {
		s, err := newSealer(r.cfg.Key)
		if err != nil {
			return err
		}
		r.sealer = s
		out.OtherKey = l.Key != "" && l.Key != s.id
	}
	r.waiting[p] = entry{alone: alone}
	k, err := r.load(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // recorded meanwhile
	}
	out.Waiting++
	if _, named := l.places[p]; !named {
		out.Unnamed++
	}
	switch {
	case err == nil && (out.Oldest.IsZero() || k.Since.Before(out.Oldest)):
		out.Oldest = k.Since
	case errors.Is(err, errDamaged) && !out.OtherKey:
		out.Damaged++
	case err != nil && !errors.Is(err, errDamaged):
		return err
	}
	return nil
}

// halfFile is the half whose file has that name.
func halfFile(name string) (p place, ending string, ok bool) {
	if ending = filepath.Ext(name); ending != suffix && ending != suffixAlone {
		return p, "", false
	}
	p, ok = placeOf(strings.TrimSuffix(name, ending))
	return p, ending, ok
}
