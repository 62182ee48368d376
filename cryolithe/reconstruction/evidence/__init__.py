"""What images say of themselves: polarity, order, axis, optics, images that lie wrong; and the volume's check."""
