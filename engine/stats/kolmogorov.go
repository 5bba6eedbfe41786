package stats

import (
	"math"
	"math/big"
)

// The ways to the Kolmogorov distribution follow Simard and L'Ecuyer (2011), as
// scipy.stats.kstwo does.
const (
	// exactKSRows is the size up to which scipy's ks_2samp is exact by default.
	exactKSRows = 10_000
	// smirnovTerms bounds the exact one-sided sum; beyond it the limit with its
	// first correction is right to a few parts in smirnovTerms.
	smirnovTerms = 200_000
)

// KolmogorovTail returns P(D_n >= d) of the two-sided one-sample statistic, which
// for n = round(n1 n2/(n1+n2)) is scipy's asymptotic two-sample p-value.
func KolmogorovTail(n int, d float64) float64 {
	nd := float64(n) * d
	switch {
	case n <= 0 || math.IsNaN(d):
		return 1
	case d >= 1:
		return 0
	case nd <= 0.5:
		return 1
	case nd <= 1:
		// n!/n^n (2nd - 1)^n
		lg, _ := math.Lgamma(float64(n) + 1)
		return clip01(1 - math.Exp(lg+float64(n)*math.Log((2*nd-1)/float64(n))))
	case nd >= float64(n-1):
		return clip01(2 * math.Pow(1-d, float64(n)))
	case d >= 0.5:
		return clip01(2 * smirnovTail(n, d))
	}
	return kolmogorovMiddle(n, d)
}

func kolmogorovMiddle(n int, d float64) float64 {
	nd := float64(n) * d
	ndd := nd * d
	if n <= 140 {
		if ndd <= 4 {
			return clip01(1 - durbin(n, d))
		}
		return clip01(2 * smirnovTail(n, d))
	}
	switch {
	case ndd >= 370:
		return 0
	case ndd >= 2.2:
		return clip01(2 * smirnovTail(n, d))
	case n <= 100_000 && nd*math.Sqrt(d) <= 1.4:
		return clip01(1 - durbin(n, d))
	}
	return clip01(pelzGoodTail(n, d))
}

func clip01(p float64) float64 { return min(max(p, 0), 1) }

// smirnovTail returns P(D+_n >= d) of the one-sided statistic.
func smirnovTail(n int, d float64) float64 {
	nf := float64(n)
	if n > smirnovTerms {
		t := 6*nf*d + 1
		return clip01(math.Exp(-t * t / (18 * nf)))
	}
	var total, logBinomial float64
	for j := 0; j < n; j++ {
		jf := float64(j)
		rest := 1 - d - jf/nf
		if rest <= 0 {
			break
		}
		total += math.Exp(logBinomial + (jf-1)*math.Log(d+jf/nf) + (nf-jf)*math.Log(rest))
		logBinomial += math.Log((nf - jf) / (jf + 1))
	}
	return clip01(d * total)
}

// durbin returns P(D_n <= d) by Durbin's matrix in the form of Marsaglia, Tsang
// and Wang: entry (k,k) of n!/n^n H^n.
func durbin(n int, d float64) float64 {
	k := int(math.Ceil(float64(n) * d))
	h := float64(k) - float64(n)*d
	m := 2*k - 1
	p, exp := scaledPower(durbinMatrix(m, h), m, n)
	v := p[(k-1)*m+k-1]
	for i := 1; i <= n; i++ {
		v *= float64(i) / float64(n)
		if v < 0x1p-128 {
			v *= 0x1p128
			exp -= 128
		}
	}
	return math.Ldexp(v, exp)
}

func durbinMatrix(m int, h float64) []float64 {
	inv := make([]float64, m+2) // 1/i!
	inv[0] = 1
	for i := 1; i < len(inv); i++ {
		inv[i] = inv[i-1] / float64(i)
	}
	a := make([]float64, m*m)
	for i := range m {
		for j := range m {
			if i-j+1 >= 0 {
				a[i*m+j] = inv[i-j+1]
			}
		}
	}
	hp := 1.0
	for i := range m {
		hp *= h
		a[i*m] -= hp * inv[i+1]
		a[(m-1)*m+m-1-i] -= hp * inv[i+1]
	}
	// The corner was corrected twice: it is (1 - 2h^m + max(2h-1,0)^m)/m!.
	a[(m-1)*m] = (1 - 2*hp + math.Pow(max(2*h-1, 0), float64(m))) * inv[m]
	return a
}

// scaledPower returns a^n as a matrix and a power of two.
func scaledPower(a []float64, m, n int) (p []float64, exp int) {
	p = make([]float64, m*m)
	for i := range m {
		p[i*m+i] = 1
	}
	aExp := 0
	for ; n > 0; n /= 2 {
		if n%2 == 1 {
			p = multiply(p, a, m)
			exp += aExp
		}
		a = multiply(a, a, m)
		aExp *= 2
		if math.Abs(a[(m/2)*m+m/2]) > 0x1p128 {
			for i := range a {
				a[i] *= 0x1p-128
			}
			aExp += 128
		}
	}
	return p, exp
}

func multiply(a, b []float64, m int) []float64 {
	c := make([]float64, m*m)
	for i := range m {
		row := c[i*m : i*m+m]
		for k := range m {
			v := a[i*m+k]
			if v == 0 {
				continue
			}
			for j, w := range b[k*m : k*m+m] {
				row[j] += v * w
			}
		}
	}
	return c
}

// pelzGoodTail is 1 - P(D_n <= d) by the expansion of Pelz and Good (1976) in
// 1/sqrt(n), its terms written with theta functions so that they converge for
// small z too.
func pelzGoodTail(n int, d float64) float64 {
	nf := float64(n)
	z := math.Sqrt(nf) * d
	const pi2 = math.Pi * math.Pi
	z2 := z * z
	z4, z6 := z2*z2, z2*z2*z2
	z8, z10 := z4*z4, z4*z6
	if -pi2/8/z2 < -745 {
		return 1
	}
	var k0, k1, k2, k3 float64
	last := int(math.Ceil(16 * z / math.Pi))
	for k := last; k >= 1; k-- {
		m := float64(2*k - 1)
		m2 := m * m
		m4, m6 := m2*m2, m2*m2*m2
		q := math.Exp(-pi2 / 8 / z2 * m2)
		k0 += q
		k1 += q * (-z2 + pi2/4*m2)
		k2 += q * (6*z6 + 2*z4 + (2*z4-5*z2)*pi2/4*m2 + pi2*pi2*(1-2*z2)/16*m4)
		k3 += q * (-30*z6 - 90*z8 + pi2*(135*z4-96*z6)/4*m2 + pi2*pi2*(-60*z2+212*z4)/16*m4 + pi2*pi2*pi2*(5-30*z2)/64*m6)
	}
	root := math.Sqrt(2 * math.Pi)
	k0 *= root / z
	k1 *= root / (6 * z4)
	k2 *= root / (72 * z6 * z)
	k3 *= root / (6480 * z10)
	var e2, e3 float64
	for k := last; k >= 1; k-- {
		kk := float64(k) * float64(k)
		q := math.Exp(-pi2 / 2 / z2 * kk)
		e2 += kk * q
		e3 += (3*z2 - pi2*kk) * kk * q
	}
	k2 += e2 * pi2 * root / (-36 * z2 * z)
	k3 += e3 * pi2 * root / (216 * z6)
	return 1 - k0 - k1/math.Sqrt(nf) - k2/nf - k3/(nf*math.Sqrt(nf))
}

// twoSampleTail returns the p-value of scipy's ks_2samp(method="auto"): exact up
// to 10,000 rows a side, else asymptotic.
func twoSampleTail(n1, n2 int, d float64) float64 {
	if max(n1, n2) <= exactKSRows {
		return exactTwoSample(n1, n2, d)
	}
	n, m := float64(n1), float64(n2)
	return KolmogorovTail(int(math.RoundToEven(n*m/(n+m))), d)
}

// exactTwoSample returns the share of lattice paths from (0,0) to (n1,n2) that
// reach |x/n1 - y/n2| >= d. A path to (i,j) comes from (i-1,j) in i of i+j cases.
func exactTwoSample(n1, n2 int, d float64) float64 {
	m, n := max(n1, n2), min(n1, n2)
	g := int(new(big.Int).GCD(nil, nil, big.NewInt(int64(m)), big.NewInt(int64(n))).Int64())
	mg, ng := m/g, n/g
	h := int(math.RoundToEven(d * float64(mg*n)))
	if h == 0 {
		return 1
	}
	out := make([]float64, n+1) // P(left the band) at (i, j)
	for j := range out {
		if mg*j >= h {
			out[j] = 1
		}
	}
	for i := 1; i <= m; i++ {
		lo := min(max(floorDiv(ng*i-h, mg)+1, 0), n)
		hi := min((ng*i+h+mg-1)/mg, n+1)
		if hi <= lo {
			return 1
		}
		below := 1.0
		if lo == 0 {
			below = 0
		}
		for j := lo; j < hi; j++ {
			below = (out[j]*float64(i) + below*float64(j)) / float64(i+j)
			out[j] = below
		}
	}
	return out[n]
}

func floorDiv(a, b int) int {
	q := a / b
	if a%b != 0 && a < 0 {
		q--
	}
	return q
}
