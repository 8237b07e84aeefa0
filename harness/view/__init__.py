"""`harness view`: a local web page that shows runs while they compute, and finished boards. It only reads."""
