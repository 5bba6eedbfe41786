package treeshap

// kernelSets are the kernels of this machine.
func kernelSets() map[string]*kernelSet {
	sets := map[string]*kernelSet{}
	if hasAVX2 {
		sets["AVX2"] = &avx2
	}
	if hasAVX512 {
		sets["AVX-512"] = &avx512
	}
	return sets
}
