package graph

// operator is an entry of the table of supported operators.
type operator struct {
	minIn, maxIn, maxOut int
	// prepare, if not nil, is called with constant inputs when the file is read; its
	// result is stored in the node.
	prepare func(m *Model, n *node) any
	// run gets at least maxIn inputs (any number where maxIn is many), nil for
	// one left out, and returns the outputs.
	run func(r *run, n *node, in []*value) []*value
}

// many is for operators with any number of inputs or outputs.
const many = maxNames

// maxInputs returns the length of the list of inputs, in which optional ones may
// be nil.
func (o *operator) maxInputs(given int) int {
	if o.maxIn == many {
		return given
	}
	return o.maxIn
}

// operators are the supported standard operators, by name.
var operators map[string]*operator

func init() {
	operators = map[string]*operator{
		"LSTM": {3, 8, 3, prepareRecurrent, runRecurrent},
		"GRU":  {3, 6, 2, prepareRecurrent, runRecurrent},
		"RNN":  {3, 6, 2, prepareRecurrent, runRecurrent},

		"Gemm":               {2, 3, 1, prepareGemm, runGemm},
		"MatMul":             {2, 2, 1, prepareMatMul, runMatMul},
		"LayerNormalization": {2, 3, 3, nil, runLayerNorm},
		"Softmax":            {1, 1, 1, nil, runSoftmax},
		"LogSoftmax":         {1, 1, 1, nil, runSoftmax},

		"Conv":                  {2, 3, 1, prepareConv, runConv},
		"ConvTranspose":         {2, 3, 1, prepareConv, runConvTranspose},
		"MaxPool":               {1, 1, 2, nil, runPool},
		"AveragePool":           {1, 1, 1, nil, runPool},
		"GlobalMaxPool":         {1, 1, 1, nil, runPool},
		"GlobalAveragePool":     {1, 1, 1, nil, runPool},
		"BatchNormalization":    {5, 5, 1, nil, runBatchNorm},
		"InstanceNormalization": {3, 3, 1, nil, runGroupNorm},
		"GroupNormalization":    {3, 3, 1, nil, runGroupNorm},

		"If":              {1, 1, many, nil, runIf},
		"Scan":            {1, many, many, prepareScan, runScan},
		"Loop":            {0, many, many, prepareLoop, runLoop},
		"Identity":        {1, 1, 1, nil, runIdentity},
		"Dropout":         {1, 3, 2, nil, runDropout},
		"Constant":        {0, 0, 1, prepareConstant, runConstant},
		"ConstantOfShape": {1, 1, 1, prepareFill, runConstantOfShape},
		"Shape":           {1, 1, 1, nil, runShape},
		"Size":            {1, 1, 1, nil, runSize},
		"Range":           {3, 3, 1, nil, runRange},
		"Cast":            {1, 1, 1, nil, runCast},
		"CastLike":        {2, 2, 1, nil, runCastLike},
		"Reshape":         {2, 2, 1, nil, runReshape},
		"Flatten":         {1, 1, 1, nil, runFlatten},
		"Squeeze":         {1, 2, 1, nil, runSqueeze},
		"Unsqueeze":       {1, 2, 1, nil, runUnsqueeze},
		"Transpose":       {1, 1, 1, nil, runTranspose},
		"Expand":          {2, 2, 1, nil, runExpand},
		"Tile":            {2, 2, 1, nil, runTile},
		"Concat":          {1, many, 1, nil, runConcat},
		"Split":           {1, 2, many, nil, runSplit},
		"Slice":           {1, 5, 1, nil, runSlice},
		"Gather":          {2, 2, 1, prepareGather, runGather},
		"GatherElements":  {2, 2, 1, nil, runGatherElements},
		"GatherND":        {2, 2, 1, nil, runGatherND},
		"Where":           {3, 3, 1, nil, runWhere},
		"Pad":             {1, 4, 1, nil, runPad},

		"HannWindow":            {1, 1, 1, nil, runWindow},
		"HammingWindow":         {1, 1, 1, nil, runWindow},
		"BlackmanWindow":        {1, 1, 1, nil, runWindow},
		"DFT":                   {1, 3, 1, nil, runDFT},
		"STFT":                  {2, 4, 1, nil, runSTFT},
		"MelWeightMatrix":       {5, 5, 1, nil, runMelWeights},
		"QuantizeLinear":        {2, 3, 1, nil, runQuantize},
		"DequantizeLinear":      {2, 3, 1, nil, runDequantize},
		"DynamicQuantizeLinear": {1, 1, 3, nil, runDynamicQuantize},
		"MatMulInteger":         {2, 4, 1, nil, runMatMulInteger},
		"ConvInteger":           {2, 4, 1, nil, runConvInteger},
		"QLinearMatMul":         {8, 8, 1, nil, runQLinearMatMul},
		"QLinearConv":           {8, 9, 1, nil, runQLinearConv},

		"com.microsoft.BiasGelu":               {2, 2, 1, nil, runBiasGelu},
		"com.microsoft.FastGelu":               {1, 2, 1, nil, runBiasGelu},
		"com.microsoft.FusedMatMul":            {2, 2, 1, nil, runFusedMatMul},
		"com.microsoft.SkipLayerNormalization": {3, 5, 4, nil, runSkipLayerNorm},
		DynamicLSTM:                            {3, 12, 3, prepareDynamicLSTM, runDynamicLSTM},

		"Einsum":          {1, many, 1, prepareEinsum, runEinsum},
		"Resize":          {1, 4, 1, nil, runResize},
		"Upsample":        {1, 2, 1, nil, runResize},
		"Sum":             {1, many, 1, nil, runSum},
		"Mean":            {1, many, 1, nil, runSum},
		"PRelu":           {2, 2, 1, nil, runPRelu},
		"IsNaN":           {1, 1, 1, nil, runIs},
		"IsInf":           {1, 1, 1, nil, runIs},
		"Hardmax":         {1, 1, 1, nil, runHardmax},
		"CumSum":          {2, 2, 1, nil, runCumulative},
		"CumProd":         {2, 2, 1, nil, runCumulative},
		"Scatter":         {3, 3, 1, nil, runScatterElements},
		"ScatterElements": {3, 3, 1, nil, runScatterElements},
		"ScatterND":       {3, 3, 1, nil, runScatterND},
		"OneHot":          {3, 3, 1, nil, runOneHot},
		"Trilu":           {1, 2, 1, nil, runTrilu},
		"EyeLike":         {1, 1, 1, nil, runEyeLike},
		"NonZero":         {1, 1, 1, nil, runNonZero},
		"Compress":        {2, 2, 1, nil, runCompress},
		"TopK":            {1, 2, 2, nil, runTopK},
		"Unique":          {1, 1, 4, nil, runUnique},
		"ReverseSequence": {2, 2, 1, nil, runReverseSequence},
		"SpaceToDepth":    {1, 1, 1, nil, runBlocks},
		"DepthToSpace":    {1, 1, 1, nil, runBlocks},
		"ArgMax":          {1, 1, 1, nil, runArg},
		"ArgMin":          {1, 1, 1, nil, runArg},
		"Clip":            {1, 3, 1, nil, runClip},
		"Not":             {1, 1, 1, nil, runNot},
	}
	for name := range binaryOps {
		operators[name] = &operator{2, 2, 1, nil, runBinary}
	}
	for name := range compareOps {
		operators[name] = &operator{2, 2, 1, nil, runCompare}
	}
	for name := range unaryOps {
		operators[name] = &operator{1, 1, 1, nil, runUnary}
	}
	for name := range functions {
		operators[name] = &operator{1, 1, 1, nil, runFunction}
	}
	for name := range bitOps {
		operators[name] = &operator{2, 2, 1, nil, runBits}
	}
	for name := range reductions {
		operators[name] = &operator{1, 2, 1, nil, runReduction}
	}
	for _, name := range []string{"Min", "Max"} {
		operators[name] = &operator{1, many, 1, nil, runMinMax}
	}
}

// attributes are what operators support, where that is checked when a file is read.
// An operator that is not listed checks its own.
var attributes = map[string]attributeSet{
	"Cast": "to=1|2|3|4|5|6|7|9|10|11|12|13|16 saturate round_mode",
	"Pad":  "mode=constant|reflect|edge|wrap pads value",
	"Resize": "mode=nearest|linear|cubic nearest_mode=floor|ceil|round_prefer_floor|round_prefer_ceil keep_aspect_ratio_policy=stretch|not_larger|not_smaller " +
		"coordinate_transformation_mode=half_pixel|half_pixel_symmetric|pytorch_half_pixel|align_corners|asymmetric|tf_half_pixel_for_nn|tf_crop_and_resize " +
		"antialias axes cubic_coeff_a exclude_outside extrapolation_value",
	"HannWindow":       "periodic output_datatype=1|11",
	"HammingWindow":    "periodic output_datatype=1|11",
	"BlackmanWindow":   "periodic output_datatype=1|11",
	"DFT":              "axis inverse onesided",
	"STFT":             "onesided",
	"MelWeightMatrix":  "output_datatype=1|11",
	"QuantizeLinear":   "axis block_size saturate output_dtype=0|2|3|4|5|6|12 precision=0|1",
	"DequantizeLinear": "axis block_size output_dtype=0|1",
	"ConvInteger":      "auto_pad dilations group kernel_shape pads strides",
	"QLinearConv":      "auto_pad dilations group kernel_shape pads strides",
	"Einsum":           "equation",
	"Upsample":         "mode=nearest|linear scales",
	"Gelu":             "approximate=none|tanh",
	"Selu":             "alpha gamma",
	"Celu":             "alpha",
	"Swish":            "alpha",
	"ThresholdedRelu":  "alpha",
	"Shrink":           "bias lambd",
	"IsInf":            "detect_positive detect_negative",
	"Hardmax":          "axis",
	"BitShift":         "direction=LEFT|RIGHT",
	"CumSum":           "exclusive reverse",
	"CumProd":          "exclusive reverse",
	"Scatter":          "axis",
	"ScatterElements":  "axis reduction=none|add|mul|max|min",
	"ScatterND":        "reduction=none|add|mul|max|min",
	"OneHot":           "axis",
	"Trilu":            "upper",
	"EyeLike":          "dtype k",
	"Compress":         "axis",
	"TopK":             "axis k largest sorted",
	"Unique":           "axis sorted",
	"ReverseSequence":  "batch_axis time_axis",
	"SpaceToDepth":     "blocksize mode=DCR|CRD",
	"DepthToSpace":     "blocksize mode=DCR|CRD",
}
