package train

// Checksum is that of a checkpoint.
var Checksum = checksum
