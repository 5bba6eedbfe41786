package graph

import "fmt"

// readLoss is NegativeLogLikelihoodLoss, and SoftmaxCrossEntropyLoss, which is that of
// the logarithms of the softmax.
func readLoss(b *builder) (composer, error) {
	reduction := b.attrs.string("reduction", "mean")
	if reduction != "mean" && reduction != "sum" && reduction != "none" {
		return nil, b.node.corrupt("reduction %q", reduction)
	}
	ignores, ignore := b.attrs.has("ignore_index"), b.attrs.int("ignore_index", 0)
	return func(f *body) error {
		d, shape := f.in[0].DType(), f.shape(0)
		if len(shape) < 2 || len(f.shape(1)) != len(shape)-1 {
			return fmt.Errorf("scores of shape %v and classes of %v", shape, f.shape(1))
		}
		x, class := f.given(0), f.given(1)
		if b.node.Op == "SoftmaxCrossEntropyLoss" {
			x = f.axis("LogSoftmax", 1, x)
		}
		weight := ""
		if ignores {
			// What is ignored may be no class: it reads the first one and weighs nothing.
			kept := f.op("Equal", class, f.number(f.in[1].DType(), float64(ignore)))
			class = f.op("Where", kept, f.number(f.in[1].DType(), 0), class)
			weight = f.op("Where", kept, f.number(d, 0), f.number(d, 1))
		}
		if f.given(2) != "" {
			w := f.op("Gather", f.given(2), class)
			if weight != "" {
				w = f.op("Mul", w, weight)
			}
			weight = w
		}
		loss := f.op("Neg", f.op("Squeeze", f.axis("GatherElements", 1, x, f.op("Unsqueeze", class, f.ints(1))), f.ints(1)))
		if weight != "" {
			loss = f.op("Mul", loss, weight)
		}
		all := Attrs{"keepdims": {Kind: AttrInt}}
		switch {
		case reduction == "sum":
			loss = f.with("ReduceSum", all, loss)
		case reduction == "mean" && weight != "":
			loss = f.op("Div", f.with("ReduceSum", all, loss), f.with("ReduceSum", all, weight))
		case reduction == "mean":
			loss = f.with("ReduceMean", all, loss)
		}
		f.give(loss, x)
		return nil
	}, nil
}

// readMeanVariance subtracts the mean over some axes and divides by the deviation.
func readMeanVariance(b *builder) (composer, error) {
	axes := []int{0, 2, 3}
	if b.attrs.has("axes") {
		axes = toInts(b.attrs.ints("axes"))
	}
	return func(f *body) error {
		d, x, over := f.in[0].DType(), f.given(0), f.ints(axes...)
		centred := f.op("Sub", x, f.op("ReduceMean", x, over))
		variance := f.op("ReduceMean", f.op("Mul", centred, centred), over)
		f.give(f.op("Div", centred, f.op("Add", f.op("Sqrt", variance), f.number(d, 1e-9))))
		return nil
	}, nil
}

// readShrink moves what is outside lambd of zero towards it, and drops the rest.
func readShrink(b *builder) (composer, error) {
	lambd, bias := b.attrs.float("lambd", 0.5), b.attrs.float("bias", 0)
	return func(f *body) error {
		d, x := f.in[0].DType(), f.given(0)
		low := f.op("Where", f.op("Less", x, f.number(d, -lambd)), f.op("Add", x, f.number(d, bias)), f.number(d, 0))
		f.give(f.op("Where", f.op("Greater", x, f.number(d, lambd)), f.op("Sub", x, f.number(d, bias)), low))
		return nil
	}, nil
}

// readLRN divides by the sum of squares of the channels around.
func readLRN(b *builder) (composer, error) {
	alpha, beta, bias, size := b.attrs.float("alpha", 1e-4), b.attrs.float("beta", 0.75), b.attrs.float("bias", 1), b.attrs.int("size", 0)
	if size < 1 || size > 1<<16 {
		return nil, b.node.corrupt("size %d", size)
	}
	return func(f *body) error {
		d, x, shape := f.in[0].DType(), f.given(0), f.shape(0)
		if len(shape) < 3 {
			return fmt.Errorf("an input of shape %v", shape)
		}
		// The channels become the rows of one plane, and the sum an average of windows.
		flat := f.op("Reshape", f.op("Mul", x, x), f.ints(shape[0], 1, shape[1], volume(shape[2:])))
		before := (size - 1) / 2
		padded := f.op("Pad", flat, f.ints(0, 0, before, 0, 0, 0, size-1-before, 0))
		mean := f.with("AveragePool", Attrs{"kernel_shape": {Kind: AttrInts, Ints: []int64{int64(size), 1}}}, padded)
		sum := f.op("Reshape", f.op("Mul", mean, f.number(d, alpha)), f.ints(shape...))
		f.give(f.op("Div", x, f.op("Pow", f.op("Add", sum, f.number(d, bias)), f.number(d, beta))))
		return nil
	}, nil
}

func init() {
	loss := opDef{since: 12, minIn: 2, maxIn: 3, maxOut: 1, accept: floatTypes}
	entropy := loss
	entropy.maxOut = 2
	one := opDef{since: 9, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes}
	lrn := one
	lrn.since = 1
	shrink := one
	shrink.accept = numericTypes
	register(DomainONNX, map[string]opDef{
		"NegativeLogLikelihoodLoss": composite(loss, readLoss),
		"SoftmaxCrossEntropyLoss":   composite(entropy, readLoss),
		"MeanVarianceNormalization": composite(one, readMeanVariance),
		"Shrink":                    composite(shrink, readShrink),
		"LRN":                       composite(lrn, readLRN),
	})
}
