package convolve

// machine is what a processor has.
type machine struct {
	// lanes are the elements of a vector, rows the most windows of a tile.
	lanes, rows int
	tiles       *tileKernels
	// sum and most join windows channel by channel.
	sum, most func(*byte)
	// slides join windows of ordinary forms without loading what they share again.
	slides *slideKernels
	// enter and leave are the transformations of squares, weigh that of weights.
	enter, leave, weigh func(*byte)
	// widen makes floats of rows of a panel in 8 bits, scale multiplies those of one.
	widen func(to *float32, from *int8, scale, zero *float32, rows int)
	scale func(to, scale *float32, rows int)
}
