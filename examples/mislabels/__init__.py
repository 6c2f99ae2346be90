"""Wrong labels in a folder of pictures: found by the report, corrected, and what that is worth."""
