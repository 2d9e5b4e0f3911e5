"""The page on which a person reviews a run (`segment --report`); `review.html` is its template.

page        rows spooled while the run goes on, and the page written at its end
markup      rows, columns and texts as HTML
thumbnails  small images with their outlines
"""
