"""supervised: views of labelled images -> what the frozen encoder reaches with labels."""
