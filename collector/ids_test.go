package collector

import "testing"

func TestOwnID(t *testing.T) {
	for id, want := range map[string]bool{
		"01930b4e-7f2a-7c11-8a22-0123456789ab": true, "01930b4e-7f2a-7c11-8a22-0123456789ab.12": true,
		"01930B4E-7f2a-7c11-8a22-0123456789ab": false, "01930b4e-7f2a-7c11-8a22-0123456789ab.x": false, "01930b4e-7f2a-7c11-8a22-0123456789abc": false,
		"01930b4e07f2a-7c11-8a22-0123456789ab": false, "patient-jane-roe": false, "": false, "trace:0af7651916cd43dd8448eb211c80319c": false,
	} {
		if OwnID(id) != want {
			t.Errorf("%q: %t", id, !want)
		}
	}
}
